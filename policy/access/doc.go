// Package access says who may come in at all: by network, country, network operator (ASN), DNS blocklist, hour of the week, TLS
// version, client certificate, and by the list of accounts that are switched off.
//
// A Keeper keeps the files and what blocklists have answered, for as long as the process runs. Rules are what one configuration
// makes of them: Client is asked before any crypto is spent on a client, User once it is known where the login goes. Neither
// waits for anything but a blocklist, and for that one never longer than its deadline.
//
// What the package promises: a list or database that turns bad leaves the one before in force, and says so; a blocklist that
// cannot answer refuses nobody; a list of a million networks takes 8 MB for IPv4, and for IPv6 19 MB, or 35 where they are longer than /64.
//
// DNS blocklists are asked as RFC 5782 has it.
package access
