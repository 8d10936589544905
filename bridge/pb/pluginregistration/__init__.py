"""Generated from `proto/` by `tools/make_proto.py`; not to be edited."""
