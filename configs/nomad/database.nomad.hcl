# A job that asks for its snapshot itself, before its new version touches the volume, and does not start without it.
#
# The prestart task calls snapbridge's API with a workload identity made for it (aud = snapbridge). It may only touch
# the volumes that its own group claims. The volume is mounted by then and the old version is gone, so the data is
# quiet. If the snapshot fails, the task fails, and with it the deployment.
# The two lines of the script do what `snapbridge hook snapshot database-data` does, where there is only curl: the
# answer comes when the snapshot is ready, an error status when it failed or is not ready yet (then curl asks again).
# The idempotency key makes a repeat ask for the same snapshot, not for another one.

job "database" {
  group "database" {
    count = 1

    volume "data" {
      type            = "csi"
      source          = "database-data"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "snapshot" {
      driver = "exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      identity {
        name = "snapbridge"
        aud  = ["snapbridge"]
        ttl  = "15m"
        file = true
      }

      env {
        SNAPBRIDGE_ADDR = "http://127.0.0.1:7717"
        VOLUME          = "database-data"
      }

      config {
        command = "/bin/sh"
        args    = ["${NOMAD_TASK_DIR}/snapshot.sh"]
      }

      template {
        destination = "local/snapshot.sh"
        data        = <<-EOT
          token="Authorization: Bearer $(cat "$NOMAD_SECRETS_DIR/nomad_snapbridge.jwt")"
          curl -sS --fail-with-body --retry 60 --retry-max-time 600 --retry-connrefused -H "$token" \
            -H "Content-Type: application/json" -H "Idempotency-Key: $NOMAD_ALLOC_ID" \
            -d "{\"namespace\":\"$NOMAD_NAMESPACE\",\"volume\":\"$VOLUME\",\"name\":\"before-$NOMAD_SHORT_ALLOC_ID\"}" \
            "$SNAPBRIDGE_ADDR/v1/snapshots?wait=60s"
        EOT
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "database" {
      driver = "exec"

      config {
        command = "/usr/bin/postgres"
        args    = ["-D", "/data"]
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
