# In-place revert of volumes of jobs with one group: the group is scaled to 0, and back. Add it to policy.hcl.

namespace "*" {
  capabilities = [
    "scale-job",        # the count of a group to 0, and back
  ]
}
