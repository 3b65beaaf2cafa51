// Package tls finds the programs and libraries by which processes encrypt, and lets uprobes be attached to them.
//
// Nothing is looked for until a process is seen to speak TLS: whoever sees that calls Examine. So a process that encrypts
// nothing costs nothing, and a library that is loaded late is found too. The package site says where in a file the uprobes
// belong; an Attacher places them.
package tls
