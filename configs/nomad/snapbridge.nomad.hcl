# snapbridge itself as a Nomad service, on a client that runs a plugin, so that it reaches the plugin's socket.
#
# raw_exec and root, because a plugin's socket directory is 0700 and belongs to the agent's user. The ledger is a
# file on this client: keep the job on it (constraint) and one copy (count = 1). Its Nomad token is the job's own
# workload identity; give it the policy beside this file:
#   nomad acl policy apply -namespace default -job snapbridge snapbridge configs/nomad/policy.hcl

job "snapbridge" {
  type = "service"

  constraint {
    attribute = "${node.unique.name}"
    value     = "storage-1"
  }

  group "snapbridge" {
    count = 1

    task "serve" {
      driver       = "raw_exec"
      kill_timeout = "30s"

      identity {
        env  = false
        file = true # secrets/nomad_token, renewed by Nomad and read again by snapbridge
      }

      config {
        command = "/opt/snapbridge/bin/snapbridge"
        args    = ["serve", "-c", "${NOMAD_TASK_DIR}/snapbridge.yaml"]
      }

      template {
        destination = "local/snapbridge.yaml"
        data        = <<-EOT
          service:
            data_dir: /var/lib/snapbridge
          api:
            host: 127.0.0.1
            port: 7717
            token_file: /etc/snapbridge/tokens
          clusters:
            - name: eu-west
              kind: nomad
              address: http://127.0.0.1:4646
              token_file: {{ env "NOMAD_SECRETS_DIR" }}/nomad_token
              state_dir: /opt/nomad/data/client
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
