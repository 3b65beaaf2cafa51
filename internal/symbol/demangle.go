//go:build linux

package symbol

import (
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// maxMangledBytes is where names stay as they are: a short one can stand for one of many gigabytes, so the length of what
// comes out is bounded too (maxDemangledPower, a power of two).
const (
	maxMangledBytes   = 4096
	maxDemangledPower = 13
)

// nativeFrame names a native function as people write it, and tells whether it is one of Rust.
func nativeFrame(linkage string) (frame Frame) {
	frame = Frame{Function: linkage, Type: Native}
	// The version of a symbol in .symtab (memcpy@@GLIBC_2.14) is no part of its name.
	base, version, versioned := strings.Cut(linkage, "@")
	if versioned && version != "plt" {
		frame.Function, frame.Linkage = base, linkage
	}
	suffix := ""
	if version == "plt" {
		suffix = "@plt"
	}
	rust := strings.HasPrefix(base, "_R") || legacyRust(base)
	if len(base) > maxMangledBytes || !rust && !strings.HasPrefix(base, "_Z") {
		return frame
	}
	if rust {
		frame.Type = Rust
	}
	defer func() {
		if recover() != nil { // A library may be wrong about hostile names; the mangled one is right.
			frame.Function, frame.Linkage = linkage, ""
		}
	}()
	name, err := demangle.ToString(base, demangle.NoParams, demangle.NoEnclosingParams, demangle.MaxLength(maxDemangledPower))
	if err == nil && name != "" {
		frame.Function, frame.Linkage = name+suffix, linkage
	} else if rust {
		frame.Type = Native
	}
	return frame
}

// legacyRust tells whether a name is of Rust before its own mangling: like one of C++, with a hash at its end.
func legacyRust(name string) bool {
	const hash = "17h0123456789abcdefE"
	name, _, _ = strings.Cut(name, ".llvm.")
	if !strings.HasPrefix(name, "_ZN") || len(name) < len(hash)+3 {
		return false
	}
	end := name[len(name)-len(hash):]
	return strings.HasPrefix(end, "17h") && end[len(end)-1] == 'E' && strings.Trim(end[3:len(end)-1], "0123456789abcdef") == ""
}
