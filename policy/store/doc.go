// Package store keeps what is counted, in memory: times of rates, which may be forgotten when they are old or too
// many, and numbers of what is there now, which may not.
//
// Keys are 64-bit hashes under a seed that no stranger knows, so none can choose keys that collide. Nothing here
// allocates once it has grown, and nothing a stranger does makes it grow without bound.
package store
