# A web job whose volume is snapshotted at each deploy: nothing but meta. Keys use underscores; a group's meta
# overrides the job's, key by key. What is wrong with a key is told in the variable snapbridge/status/web.

job "web" {
  meta {
    snapbridge_on_deploy       = "true"
    snapbridge_volumes         = "data"    # a volume block's label, a volume's id, or * for all of the group
    snapbridge_deletion_policy = "Delete"  # or Retain: the backend keeps the snapshot when its record is deleted
    snapbridge_parameters      = ""        # for the driver: key=value,key=value or a JSON object
  }

  group "web" {
    count = 1

    volume "data" {
      type            = "csi"
      source          = "web-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "web" {
      driver = "exec"

      config {
        command = "/usr/bin/python3"
        args    = ["-m", "http.server", "--directory", "/data", "8080"]
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
