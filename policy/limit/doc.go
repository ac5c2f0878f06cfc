// Package limit holds the arithmetic of rates: how one is written, and when it lets something pass.
//
// It is GCRA, the generic cell rate algorithm (ITU-T I.371): all that is kept for one key is the time until which
// its turns are paid for, one int64. The functions are pure; who keeps the times, and how many, is package store's.
package limit
