// Package cluster is what nodes share: popgate's one Redis client, who is alive, a Bus for messages between nodes, and Shelves for
// what outlives them. Neither bus nor shelf has anybody wait, and what they carry is sealed.
//
// The client says how it connects, how long it waits, and how keys are named. It speaks to a
// single server, to the master that Sentinels name, or to a Redis Cluster; Valkey is the same to it. Redis 6 or newer is needed.
//
// No call outlives its context or the configured timeouts, whichever comes first, and none is repeated by itself: whoever
// calls knows better than a library whether to ask again. A server that is down is no reason for New to fail.
package cluster
