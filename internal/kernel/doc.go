// Package kernel finds out what the running kernel can do and loads BPF programs into it.
package kernel
