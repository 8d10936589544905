# A job that is snapshotted at each deploy and once more after each stop, when nobody writes to its data any more.
# Settings of the job hold for all its groups; a group's own win, key by key. To change a setting without a restart
# of the job, put it in the variable snapbridge/ledger (settings.nv.hcl). How the snapshots stand, and what is wrong
# with a setting, is told in the variable snapbridge/status/ledger.

job "ledger" {
  meta {
    snapbridge_volumes         = "data"    # a volume block's label, a volume's id, or * for all of the group
    snapbridge_on_deploy       = "true"    # each new version, while it starts
    snapbridge_on_stop         = "true"    # each `nomad job stop`, when the last allocation has let go
    snapbridge_deletion_policy = "Delete"
  }

  group "db" {
    meta {
      snapbridge_on_stop_wait    = "300"   # seconds to wait for writers; then it is cut all the same, and said
      snapbridge_deletion_policy = "Retain"
    }

    volume "data" {
      type            = "csi"
      source          = "ledger-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "db" {
      driver = "exec"

      config {
        command = "/usr/bin/python3"
        args    = ["-m", "http.server", "--directory", "/data", "8081"]
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
