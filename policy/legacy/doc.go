// Package legacy remembers who still comes without TLS, or with TLS 1.0 or 1.1, where a listener lets that on purpose: so that
// they can be asked to change before the day comes on which it ends.
//
// Only logins that succeeded are marked, so all names are those of users. What is kept is bounded, by users and by what one of
// them can add, with the oldest out first, and lies in one file of the state folder over a restart. It holds names: the
// file is for popgate's user alone.
package legacy
