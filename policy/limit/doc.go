// Package limit holds the arithmetic of rates: how one is written, and when it lets something pass.
//
// It is GCRA, the generic cell rate algorithm (ITU-T I.371): all that is kept for one key is the time until which
// its turns are paid for, one int64. That arithmetic is pure; Rates applies it to what package store keeps.
package limit
