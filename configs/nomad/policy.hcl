# The least that snapbridge's token needs. Take out what you do not use.

namespace "*" {
  capabilities = [
    "list-jobs", "read-job",              # hooks in job files; the event stream wants them in every namespace
    "csi-list-volume", "csi-read-volume", # what volumes there are
    "csi-write-volume",                   # snapshots through Nomad's API; registering a restored volume
    "alloc-exec",                         # quiesce and thaw in tasks (raw_exec tasks: "alloc-node-exec" too)
    "scale-job",                          # reverts in place: who uses the volume is scaled to 0 and back
    # "submit-job", "csi-mount-volume",   # `nomad undo`, and reverts of jobs that cannot be scaled (docs/nomad/revert.md)
  ]

  variables {
    path "snapbridge/*" {
      capabilities = ["list", "read"]     # settings of jobs; secrets kept at nomadVar:NAMESPACE/snapbridge/…
    }

    path "snapbridge/status/*" {          # summaries of jobs
      capabilities = ["list", "read", "write", "destroy"]
    }
  }
}

plugin {
  policy = "read"                         # "write" does not include it
}

agent {
  policy = "read"                         # the version of the agent, for its work-arounds
}
