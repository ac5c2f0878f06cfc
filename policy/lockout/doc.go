// Package lockout says what failed logins cost: a delay that grows, then a lockout for a time that grows.
//
// Failures count by client network and by user from a network, never by the user's name alone: nobody can lock out
// somebody who comes from elsewhere. The same wrong secret again counts once, so a mail client that was left with an old
// password costs its office nothing. A user who has logged in from a network within known_for is known-good there: no
// lockout that others caused touches that pair, and it has a budget of its own of different wrong secrets an hour.
//
// All that is kept is keyed digests in tables of fixed bounds, each with the oldest out first, and one for each purpose:
// who makes up users or addresses without end pushes out neither a known-good pair nor a lockout. Known-good pairs and
// lockouts survive a restart; digests of secrets have a key of their own that is never written.
//
// Where there is a Cluster, what one node learns holds on the others: each has all of it in memory, decides by that and waits
// for nobody. A failure is counted by each node and acted upon by the one where it happened, which tells of what comes of it.
//
// A Keeper remembers; a View is what the configuration says; a Try is one login, from Attempt to its end.
package lockout
