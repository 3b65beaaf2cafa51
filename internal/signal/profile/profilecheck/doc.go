// Package profilecheck tells what is wrong with a message of pprofile: every rule of the data model, of the semantic
// conventions and of this project that a machine can check. It is for tests; it shares no code with what builds messages.
//
// What it cannot see: whether stacks begin with the leaf and lines with the innermost function, whether addresses of callers
// are return addresses, and whether what is told is true.
package profilecheck
