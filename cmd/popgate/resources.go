package main

import (
	"strings"

	"github.com/popgate/popgate/proxy/admin"
)

// resources are what popgate's own commands can ask a gateway for; node is its name.
func (g *gateway) resources(node string) []admin.Resource {
	return []admin.Resource{
		admin.ServeCertificates(g.keeper),
		admin.ServeBackends(g.backends),
		admin.ServeStatus(admin.StatusSources{
			Node:     node,
			Version:  strings.Fields(versionText())[0],
			Sessions: g.proxy.Info,
			Backends: g.backends,
			Metrics:  g.registry,
			Ready:    g.ready,
			Lockouts: g.policy.Lockouts().List,
			Cluster:  g.clusterState,
		}),
		admin.ServeLockouts(g.policy.Lockouts()),
		admin.ServeLegacy(g.policy.Legacy().List),
	}
}

// clusterState is what the node sees of the others; nil where it counts by itself.
func (g *gateway) clusterState() *admin.ClusterState {
	names, trouble := g.policy.Nodes()
	if names == nil {
		return nil
	}
	s := &admin.ClusterState{Nodes: names}
	if trouble != nil {
		s.Trouble = trouble.Error()
	}
	return s
}
