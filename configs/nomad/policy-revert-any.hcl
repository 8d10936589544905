# In-place revert for every job: a job of several groups, or a system job, is stopped and its version started again. Add
# it to policy.hcl; it contains what policy-revert.hcl gives. It lets its holder change any job.

namespace "*" {
  capabilities = [
    "submit-job",       # stop a job, start a version of it
    "csi-mount-volume", # Nomad wants it of whoever starts a job that mounts a CSI volume
  ]
}
