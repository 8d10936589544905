# Door (c): a last snapshot of quiet data, by a poststop task.
#
# It runs when the main tasks are dead and the volume is still claimed and mounted, so nothing writes. The next
# allocation cannot take a single-writer volume before this task has ended. It does not run when the node is lost.
# Retain keeps the backend's snapshot even when the record is deleted later.
#
# Nomad gives a poststop task of a stopped job no identity (only the default one, which snapbridge refuses), and lets it
# wait a minute for one that it names. So it names none: the task `badge` leaves its own in the directory that the
# tasks of this group share. That one has no ttl, so that it is still good at the end; snapbridge looks at each call
# whether the allocation runs. Without hook tasks, snapbridge_on_stop = "true" in the meta takes a last snapshot too.

job "archive" {
  group "archive" {
    count = 1

    volume "data" {
      type            = "csi"
      source          = "archive-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "badge" {
      driver = "exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      identity {
        name = "snapbridge"
        aud  = ["snapbridge"]
        file = true
      }

      config {
        command = "/bin/cp"
        args    = ["${NOMAD_SECRETS_DIR}/nomad_snapbridge.jwt", "${NOMAD_ALLOC_DIR}/snapbridge.jwt"]
      }

      resources {
        cpu    = 20
        memory = 16
      }
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
