//go:build tools

// Package tools names the programs that the test bed builds, so that go.mod keeps their requirements.
package tools

import (
	_ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
)
