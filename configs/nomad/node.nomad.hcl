# A node agent on every Nomad client: it finds the sockets of the CSI plugins that run beside it, follows their restarts,
# and carries CSI calls for the service over mutual TLS. It dials out; nothing listens on the client.
#
# raw_exec and root, because a plugin's socket directory is 0700 and belongs to the agent's user. Nomad is asked over the
# task's own API socket with the job's workload identity, which needs plugin read and nothing else:
#   nomad acl policy apply -namespace default -job snapbridge-node snapbridge-node configs/nomad/policy-node.hcl
# Each client has a certificate of its own; its common name is the node's name.

job "snapbridge-node" {
  type = "system"

  group "node" {
    task "node" {
      driver       = "raw_exec"
      kill_timeout = "10s"

      identity {
        env  = false
        file = true # secrets/nomad_token, renewed by Nomad and read again by snapbridge
      }

      config {
        command = "/opt/snapbridge/bin/snapbridge"
        args    = ["node", "-c", "${NOMAD_TASK_DIR}/node.yaml"]
      }

      template {
        destination = "local/node.yaml"
        data        = <<-EOT
          node:
            name: {{ env "node.unique.name" }}
            hub: snapbridge.example:7718
            tls_cert_file: /etc/snapbridge/tls/node.crt
            tls_key_file: /etc/snapbridge/tls/node.key
            hub_ca_file: /etc/snapbridge/tls/ca.crt
          nomad:
            state_dir: /opt/nomad/data/client
        EOT
      }

      resources {
        cpu    = 50
        memory = 96
      }
    }
  }
}
