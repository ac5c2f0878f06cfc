package auth

import "errors"

// A Fault is something in the configuration that cannot be made ready: a file that cannot be read, a source that cannot be opened.
type Fault struct {
	// Key is where it stands, such as "backends[0].tls_ca".
	Key string
	Err error
}

// Error returns the key and the cause.
func (f *Fault) Error() string { return f.Key + ": " + f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Faults are all that one part of popgate finds at once.
type Faults []*Fault

// Error returns the faults, a line each.
func (f Faults) Error() string { return errors.Join(f.Unwrap()...).Error() }

// Unwrap returns the faults.
func (f Faults) Unwrap() []error {
	errs := make([]error, len(f))
	for i, one := range f {
		errs[i] = one
	}
	return errs
}
