# Door (d): freeze and thaw around the cut, so that the copy is one that the application wanted.
#
# Whoever asks for a snapshot of the volume (this job by its meta, a hook task, a person), snapbridge runs the freeze in
# the task right before the cut and the thaw right after it. The thaw runs in any case: after a failure, when the
# bound is over, after a crash of snapbridge, and by a switch that the freeze leaves in the task itself. So it must do
# no harm when it is run twice, or without a freeze. Without the freeze there is no snapshot
# (snapbridge_quiesce_required = "false" takes one all the same, and the record says crash-consistent).
#
# The texts are run by /bin/sh -c in the task. Put no secrets into them: meta can be read by many.

job "ledger" {
  group "ledger" {
    count = 1

    meta {
      snapbridge_volumes   = "data"
      snapbridge_on_deploy = "true"

      snapbridge_quiesce_task    = "ledger"
      snapbridge_quiesce         = "ledger-ctl hold && sync"
      snapbridge_thaw            = "ledger-ctl resume"
      snapbridge_quiesce_seconds = "20"

      # Or by the task's own actions, in place of the two texts:
      # snapbridge_quiesce_action = "hold"
      # snapbridge_thaw_action    = "resume"
    }

    volume "data" {
      type            = "csi"
      source          = "ledger-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "ledger" {
      driver = "exec"

      config {
        command = "/usr/bin/ledger"
        args    = ["--data", "/data"]
      }

      action "hold" {
        command = "/bin/sh"
        args    = ["-c", "ledger-ctl hold && sync"]
      }

      action "resume" {
        command = "/usr/bin/ledger-ctl"
        args    = ["resume"]
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
