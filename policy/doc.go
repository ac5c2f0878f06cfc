// Package policy decides who may come in and how often, and keeps count of who is there.
//
// A Keeper keeps the counts, for as long as the process runs. A Gate is what the configuration says about them; new
// ones replace old ones at a reload, and the counts go on. A Visit is one client's stay: what it took is given back
// when it ends, whatever way that comes about.
//
// What the package promises: no limit that goes by a user's name can be used up by anybody who does not know the
// user's password, and nothing here tells a stranger whether a name exists. So the two limits of a user speak in
// Done, after the backend has taken the password, and nothing is counted for a user before.
package policy
