// Package audit writes the record of what happened at the gateway: who came, who was let in, who was not and why, and
// what became of each session. docs/audit.md describes the records to those who read them.
//
// What the package promises: one event is one line of JSON, whole or not there; Record returns once its line is
// written, or after a bounded wait; the memory of what waits is bounded; and a record holds no secret, for an Event
// has no place for one. Written means handed to the kernel by write(2): a record survives popgate, not a power cut.
package audit
