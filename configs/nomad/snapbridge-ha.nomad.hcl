# snapbridge with two replicas: one leads, the other takes over. They share one ledger on storage that both clients mount
# (NFSv4 or CephFS: file locks must work), and elect by the lock on a Nomad variable. The policy of the job's identity:
#   nomad acl policy apply -namespace default -job snapbridge snapbridge configs/nomad/policy.hcl
# The standby is alive and not ready: the service's name leads to the leader only.

job "snapbridge" {
  type = "service"

  group "snapbridge" {
    count          = 2
    shutdown_delay = "3s" # its name is taken out of the catalogue before it stops

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      port "api" {
        static = 7717
      }
    }

    service {
      provider = "nomad"
      name     = "snapbridge"
      port     = "api"

      check {
        name     = "alive"
        type     = "http"
        path     = "/livez"
        interval = "10s"
        timeout  = "2s"
      }

      check {
        name      = "leads"
        type      = "http"
        path      = "/readyz"
        interval  = "2s"
        timeout   = "2s"
        on_update = "ignore" # a standby is never ready, and its deployment is healthy all the same
      }
    }

    task "serve" {
      driver       = "raw_exec"
      kill_timeout = "40s"

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
            data_dir: /mnt/shared/snapbridge
          api:
            host: {{ env "NOMAD_IP_api" }}
            port: 7717
            token_file: /etc/snapbridge/tokens
          clusters:
            - name: eu-west
              kind: nomad
              address: http://127.0.0.1:4646
              token_file: {{ env "NOMAD_SECRETS_DIR" }}/nomad_token
              leadership:
                ttl_seconds: 15
                address: http://{{ env "NOMAD_ADDR_api" }}
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
