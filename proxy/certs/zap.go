package certs

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap gives certmagic a logger that writes to log. It tells each step of an order; what an operator must know is said by this
// package, so all of it is for those who look for a fault.
func newZap(log *slog.Logger) *zap.Logger { return zap.New(&slogCore{log: log}) }

// slogCore writes zap's entries to a slog.Logger.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled says whether anybody reads entries; all go to the debug level.
func (c *slogCore) Enabled(zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With gives a core whose entries have the fields too.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check adds the core to those that write e.
func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write writes one entry.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	attrs := []any{"level", e.Level.String()}
	if e.LoggerName != "" {
		attrs = append(attrs, "part", e.LoggerName)
	}
	for _, list := range [][]zapcore.Field{c.fields, fields} {
		for _, f := range list {
			f.AddTo(enc)
		}
	}
	for key, value := range enc.Fields {
		// A stack is for certmagic's authors.
		if !strings.HasSuffix(key, "Verbose") {
			attrs = append(attrs, key, value)
		}
	}
	c.log.Debug("acme: "+e.Message, attrs...)
	return nil
}

// Sync does nothing: slog has no buffer.
func (c *slogCore) Sync() error { return nil }
