# A CSI plugin that keeps its volumes in a directory of one client: the localdisk driver.
#
# raw_exec, because the driver mounts at real host paths. With raw_exec the plugin sees the host's paths, so
# stage_publish_base_dir must be <state_dir>/csi/monolith/<plugin id>; <state_dir> is <data_dir>/client unless the
# client says otherwise. With docker, take privileged = true and leave stage_publish_base_dir out.
# The token needs csi-register-plugin in the namespace, which neither "read" nor "write" contains.

job "csi-localdisk" {
  type = "system"

  group "plugin" {
    task "plugin" {
      driver = "raw_exec"

      config {
        command = "/opt/snapbridge/bin/python"
        args = [
          "-m", "adapters.localdisk",
          "--state-dir", "/var/lib/snapbridge-localdisk",
          "--node-id", "${node.unique.name}",
        ]
      }

      csi_plugin {
        id                     = "localdisk"
        type                   = "monolith"
        stage_publish_base_dir = "/opt/nomad/data/client/csi/monolith/localdisk"
        health_timeout         = "30s"
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
