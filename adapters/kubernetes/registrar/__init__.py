"""The registrar role: drivers made known to this host's kubelet."""
