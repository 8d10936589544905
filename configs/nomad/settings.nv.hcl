# Settings of the job `ledger` (meta.nomad.hcl) beside its job file: they win over its meta, key by key, and take
# effect without a restart of the job.
#
#   nomad var put @configs/nomad/settings.nv.hcl
#
# Keys are those of the meta, with or without `snapbridge_`. `group.NAME.KEY` is for one group and wins over the
# others. In the path, characters of the job's id that a path refuses are written ~HEX: job a/b is snapbridge/a~2Fb.

path      = "snapbridge/ledger"
namespace = "default"

items {
  on_deploy                  = "false"
  deletion_policy            = "Delete"
  "group.db.deletion_policy" = "Retain"
  "group.db.on_stop_wait"    = "30"
}
