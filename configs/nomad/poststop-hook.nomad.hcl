# Door (c): a last snapshot of quiet data, by a poststop task.
#
# It runs when the main tasks are dead and the volume is still claimed and mounted, so nothing writes. The next
# allocation cannot take a single-writer volume before this task has ended. It does not run when the node is lost.
# Retain keeps the backend's snapshot even when the record is deleted later.

job "archive" {
  group "archive" {
    count = 1

    volume "data" {
      type            = "csi"
      source          = "archive-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "archive" {
      driver = "exec"

      config {
        command = "/usr/bin/archive"
        args    = ["--data", "/data"]
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

    task "final" {
      driver = "raw_exec"

      lifecycle {
        hook = "poststop"
      }

      identity {
        name = "snapbridge"
        aud  = ["snapbridge"]
        ttl  = "15m"
        file = true
      }

      env {
        SNAPBRIDGE_ADDR = "http://127.0.0.1:7717"
      }

      # A service that is away must not keep the job from stopping: after the bounds the task ends with a warning.
      config {
        command = "/usr/local/bin/snapbridge"
        args    = ["hook", "snapshot", "--final", "--deletion-policy", "Retain", "--timeout", "5m", "--best-effort"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
