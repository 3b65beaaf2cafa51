// Package tls finds the programs and libraries by which processes encrypt, and lets uprobes be attached to them.
//
// A process is examined when it is seen to speak TLS, so that a library that is loaded late is found too; its program alone
// when it executes that, so that what a program that has TLS built in says first is seen. Uprobes that nobody passes cost
// nothing. The package site says where in a file they belong; an Attacher places them.
package tls
