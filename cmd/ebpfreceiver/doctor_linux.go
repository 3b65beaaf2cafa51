package main

import (
	"fmt"
	"io"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/doctor"
)

func examine(btfPath string, stdout, stderr io.Writer) int {
	report := doctor.NewReport(doctor.Examine(btfPath))
	if err := report.Write(stdout); err != nil {
		fmt.Fprintf(stderr, "ebpfreceiver doctor: %v\n", err)
		return exitBad
	}
	if !report.BasicsWork() {
		return exitBad
	}
	return exitGood
}
