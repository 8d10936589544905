# The base: the least that snapbridge's token needs for snapshots, restores, hooks in job files and replicas. The other
# files are parts to add for what you use, each a policy of its own; a token or a job's identity may have several:
#   policy-revert.hcl      put a volume back under a job of one group, by scaling it
#   policy-revert-any.hcl  the same for every job, by stopping it
#   policy-quiesce.hcl     run the freeze and thaw commands of jobs inside their tasks
#   policy-node.hcl        node agents (snapbridge node); they need nothing of this file
# Reading volumes needs no capability of its own: list-jobs and read-job contain it. Of several paths that fit a variable
# only the longest counts, so each stands for itself.

namespace "*" {
  capabilities = [
    "list-jobs",        # the jobs and the volumes that there are
    "read-job",         # a job's settings, a volume's claims; the event stream wants it in every namespace
    "csi-write-volume", # snapshots through Nomad's API; registering a restored volume
  ]

  variables {
    path "snapbridge/*" {
      capabilities = [
        "read",         # settings of jobs (snapbridge/JOB); secrets kept at nomadVar:NAMESPACE/snapbridge/…
      ]
    }

    path "snapbridge/status/*" {
      capabilities = [
        "read",         # whether a summary is ours before it is touched
        "write",        # summaries of jobs (snapbridge/status/JOB)
        "destroy",      # the summary of a job that is gone
      ]
    }

    path "snapbridge/leader*" {
      capabilities = [
        "read",         # who leads, whether the lock is free, which ledger the last leader had
        "write",        # the lock that replicas elect by
      ]
    }
  }
}

plugin {
  policy = "read"       # the plugins, and every snapshot call; "write" does not include it
}

agent {
  policy = "read"       # the version of the agent, for its work-arounds
}
