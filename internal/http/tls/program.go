//go:build linux

package tls

import (
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
)

// Program is what an executable file says of itself.
type Program struct {
	Known     bool // it could be read
	Go        bool // it is a program of Go
	GoVersion string
	GoArch    string // GOARCH; empty: it does not say
}

// readProgram reads an executable file.
func readProgram(opened *os.File) (Program, error) {
	info, err := buildinfo.Read(opened)
	if err != nil {
		return readStranger(opened)
	}
	program := Program{Known: true, Go: true, GoVersion: info.GoVersion}
	for _, setting := range info.Settings {
		if setting.Key == "GOARCH" {
			program.GoArch = setting.Value
		}
	}
	return program, nil
}

// readStranger tells programs of Go that do not say so from others.
func readStranger(opened *os.File) (Program, error) {
	file, err := elf.NewFile(opened)
	if err != nil {
		return Program{}, fmt.Errorf("read %s: %w", opened.Name(), err)
	}
	for _, name := range []string{".go.buildinfo", ".gopclntab", ".note.go.buildid"} {
		if file.Section(name) != nil {
			return Program{Known: true, Go: true}, nil
		}
	}
	return Program{Known: true}, nil
}
