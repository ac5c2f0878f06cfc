// Package directory asks where a user lives: files, databases and services outside the configuration.
//
// A file of this package is a source: its section of the config, and a Source that looks a user up. Before each source that has
// to be asked over a network stands a cache, which keeps known users going while the source is down; the keeper keeps both over
// reloads. To add a source is a file with its section and constructor, its field in Config, and its line in kinds.
package directory
