# A job that asks for its snapshot itself, before its new version touches the volume, and does not start without it.
#
# The prestart task calls snapbridge's API with a workload identity made for it (aud = snapbridge). It may only touch
# the volumes that its own group claims. The volume is mounted by then and the old version is gone, so the data is
# quiet. If the snapshot fails, the task fails, and with it the deployment.
# The idempotency key makes a restarted task ask for the same snapshot again, not for another one.

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
        SNAPBRIDGE = "http://127.0.0.1:7717"
        CLUSTER    = "eu-west"
        VOLUME     = "database-data"
      }

      config {
        command = "/bin/sh"
        args    = ["${NOMAD_TASK_DIR}/snapshot.sh"]
      }

      template {
        destination = "local/snapshot.sh"
        data        = <<-EOT
          set -eu
          token="Authorization: Bearer $(cat "$NOMAD_SECRETS_DIR/nomad_snapbridge.jwt")"
          name="before-$(echo "$NOMAD_ALLOC_ID" | cut -c1-8)"
          body="{\"cluster\":\"$CLUSTER\",\"namespace\":\"$NOMAD_NAMESPACE\",\"volume\":\"$VOLUME\",\"name\":\"$name\"}"
          curl --fail-with-body --silent --show-error --max-time 60 --output answer.json \
            -H "$token" -H 'Content-Type: application/json' -H "Idempotency-Key: $NOMAD_ALLOC_ID" \
            --data "$body" "$SNAPBRIDGE/v1/snapshots"
          for second in $(seq 300); do
            curl --fail-with-body --silent --show-error --max-time 60 --output state.json \
              -H "$token" "$SNAPBRIDGE/v1/snapshots?cluster=$CLUSTER&namespace=$NOMAD_NAMESPACE&volume=$VOLUME&state=ready"
            if grep -q "\"$name\"" state.json; then echo "snapshot $name is ready"; exit 0; fi
            sleep 1
          done
          echo "snapshot $name is not ready after 300 s" >&2
          exit 1
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
