# Door (b): a snapshot before the new version touches the volume, by a prestart task.
#
# The volume is mounted by then and the old version is gone, so the data is quiet. The main task starts only when the
# snapshot is ready; if it fails, the task fails, and with it the deployment (which may then revert by itself).
# A restarted hook of the same allocation finds its first snapshot again; a new allocation makes a new one.
#
# `snapbridge hook` needs the program in the task's file system: raw_exec as here, or an image with it. Where there is
# none, the two curl lines of database.nomad.hcl do the same.

job "shop" {
  group "shop" {
    count = 1

    update {
      auto_revert = true
    }

    volume "data" {
      type            = "csi"
      source          = "shop-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "snapshot" {
      driver = "raw_exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      # Who the task is. It may touch the volumes that its own group claims, and nothing else.
      identity {
        name = "snapbridge"
        aud  = ["snapbridge"]
        ttl  = "15m"
        file = true
      }

      env {
        SNAPBRIDGE_ADDR = "http://127.0.0.1:7717"
      }

      # Without names it takes every CSI volume of the group.
      config {
        command = "/usr/local/bin/snapbridge"
        args    = ["hook", "snapshot", "--timeout", "5m"]
      }

      restart {
        attempts = 2
        delay    = "5s"
        mode     = "fail"
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "shop" {
      driver = "exec"

      config {
        command = "/usr/bin/shop"
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
  }
}
