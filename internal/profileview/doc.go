// Package profileview shows profiles that the Collector's file exporter has written: as pprof, and as a flame graph in one
// HTML file.
//
// Data flows one way. A [Reader] takes message after message from a file; a [Profile] sums their samples up, so that memory
// grows with the distinct stacks and not with the length of the file; [Profile.Pprof] and [Profile.WritePage] write it.
//
// What it reads was written by others, often by programs that are not this project's: every index into a message's tables
// is checked, and a sample that cannot be resolved is left out and counted with its reason.
//
// It needs neither Linux nor root: profiles may be looked at where they were not taken.
package profileview
