//go:build linux

package main

import (
	"bufio"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mixedPrograms are servers and clients in other languages.
//
//go:embed programs
var mixedPrograms embed.FS

// mixedRecord is what a program says of a request.
type mixedRecord struct {
	Program, Method, Path    string
	Port, Status             int
	SentBytes, ReceivedBytes int64  // of bodies; -1: it does not know
	Version                  string // of HTTP
	// How the messages were sent.
	ChunkedRequest, ChunkedResponse bool

	Ns int64
}

// writeMixedPrograms puts the programs into a directory.
func writeMixedPrograms(directory string) error {
	programs, err := fs.Sub(mixedPrograms, "programs")
	if err != nil {
		return err
	}
	return os.CopyFS(directory, programs)
}

// mixedProgram is a program that ends with its input, and then has said what it has done.
type mixedProgram struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
}

// startMixed starts a program, which does not outlive this one.
func startMixed(name string, arguments ...string) (*mixedProgram, error) {
	p := &mixedProgram{command: exec.Command(name, arguments...)}
	p.command.Stderr = os.Stderr
	p.command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make the output of %s: %w", p.command, err)
	}
	p.output = bufio.NewReader(output)
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("make the input of %s: %w", p.command, err)
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.command, err)
	}
	return p, nil
}

// finish tells a program that there is no more, and reads what it says, a record in each line.
func (p *mixedProgram) finish(program string) ([]mixedRecord, error) {
	if err := p.input.Close(); err != nil {
		return nil, fmt.Errorf("end the input of %s: %w", p.command, err)
	}
	records, err := readMixed(p.output, program)
	if ended := p.command.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("run %s: %w", p.command, ended))
	}
	return records, err
}

func readMixed(from io.Reader, program string) (records []mixedRecord, err error) {
	for decoder := json.NewDecoder(from); ; {
		record := mixedRecord{Program: program}
		switch err := decoder.Decode(&record); {
		case errors.Is(err, io.EOF):
			return records, nil
		case err != nil:
			return records, fmt.Errorf("read what %s says of a request: %w", program, err)
		}
		records = append(records, record)
	}
}

// mixedServing is all that answers.
type mixedServing struct {
	python, node *mixedProgram
	nginx        *exec.Cmd
	nginxLog     string

	mutex   sync.Mutex
	records []mixedRecord // of the server in this program
	errs    []error
}

// mixedServerRole answers as it is asked to, by several programs.
func mixedServerRole() operations {
	serving := &mixedServing{}
	return operations{
		"listen": operation(func(directory string) (none, error) { return none{}, serving.start(directory) }),
		"finish": operation(func(none) ([]mixedRecord, error) { return serving.finish() }),
	}
}

func (s *mixedServing) start(directory string) (err error) {
	if err := s.serveGo(); err != nil {
		return err
	}
	s.python, err = startMixed("python3", filepath.Join(directory, "server.py"), strconv.Itoa(mixedPythonPort))
	if err != nil {
		return err
	}
	if s.node, err = startMixed("node", filepath.Join(directory, "server.mjs"), strconv.Itoa(mixedNodePort)); err != nil {
		return err
	}
	if err := s.startNginx(directory); err != nil {
		return err
	}
	for port, name := range mixedServers() {
		if err := awaitListener(name, port); err != nil {
			return err
		}
	}
	return nil
}

func (s *mixedServing) startNginx(directory string) error {
	for _, size := range nginxSizes() {
		if err := os.WriteFile(filepath.Join(directory, strconv.Itoa(size)), make([]byte, size), 0o644); err != nil {
			return err
		}
	}
	configuration := filepath.Join(directory, "nginx.conf")
	template, err := os.ReadFile(configuration)
	if err != nil {
		return err
	}
	content := strings.NewReplacer("DIRECTORY", directory, "PORT", strconv.Itoa(mixedNginxPort)).Replace(string(template))
	if err := os.WriteFile(configuration, []byte(content), 0o644); err != nil {
		return err
	}
	s.nginxLog = filepath.Join(directory, "access.log")
	s.nginx = exec.Command("nginx", "-p", directory, "-c", configuration, "-e", "stderr")
	s.nginx.Stderr = os.Stderr
	s.nginx.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := s.nginx.Start(); err != nil {
		return fmt.Errorf("start nginx: %w", err)
	}
	return nil
}

// finish ends what was started, and collects what all have recorded.
func (s *mixedServing) finish() ([]mixedRecord, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	records, err := s.records, errors.Join(s.errs[:min(10, len(s.errs))]...)
	for port, program := range map[int]*mixedProgram{mixedPythonPort: s.python, mixedNodePort: s.node} {
		told, failed := program.finish(mixedServers()[port])
		for i := range told {
			told[i].Port = port
		}
		records, err = append(records, told...), errors.Join(err, failed)
	}
	if ended := s.nginx.Process.Signal(unix.SIGQUIT); ended != nil { // which lets it finish what it does
		return records, errors.Join(err, fmt.Errorf("end nginx: %w", ended))
	}
	if ended := s.nginx.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("run nginx: %w", ended))
	}
	told, failed := s.readNginx()
	return append(records, told...), errors.Join(err, failed)
}

// readNginx reads the log that programs/nginx.conf has nginx write.
func (s *mixedServing) readNginx() (records []mixedRecord, err error) {
	log, err := os.Open(s.nginxLog)
	if err != nil {
		return nil, fmt.Errorf("read what nginx says: %w", err)
	}
	defer log.Close()
	for decoder := json.NewDecoder(log); ; {
		var line struct {
			mixedRecord
			Protocol, Length, Coding string
			Seconds                  float64
		}
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) {
			return records, nil
		} else if err != nil {
			return records, fmt.Errorf("read what nginx says of a request: %w", err)
		}
		record := line.mixedRecord
		record.Program, record.Port, record.Ns = mixedNginx, mixedNginxPort, int64(line.Seconds*1e9)
		record.Version = strings.TrimSuffix(strings.TrimPrefix(line.Protocol, "HTTP/"), ".0")
		record.ChunkedRequest = line.Coding == "chunked"
		if record.ChunkedRequest {
			record.ReceivedBytes = -1
		} else if line.Length != "" {
			if record.ReceivedBytes, err = strconv.ParseInt(line.Length, 10, 64); err != nil {
				return records, fmt.Errorf("read the size of %s: %w", record.Path, err)
			}
		}
		records = append(records, record)
	}
}

// serveGo answers by HTTP/1 and HTTP/2.
func (s *mixedServing) serveGo() error {
	listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(mixedGoPort)))
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		start := time.Now()
		record := mixedRecord{Program: mixedGo, Port: mixedGoPort, Method: request.Method, Path: request.URL.Path,
			Version: httpVersion(request.ProtoMajor, request.ProtoMinor), ChunkedRequest: request.ContentLength < 0}
		err := record.answer(w, request, zeros)
		record.Ns = int64(time.Since(start))
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.records = append(s.records, record)
		if err != nil {
			s.errs = append(s.errs, err)
		}
	})
	go func() { _ = server.Serve(listener) }() // until the process ends
	return nil
}

// httpVersion is the version as network.protocol.version spells it.
func httpVersion(major, minor int) string {
	if major > 1 {
		return strconv.Itoa(major)
	}
	return fmt.Sprintf("%d.%d", major, minor)
}

// answer serves a request.
func (r *mixedRecord) answer(w http.ResponseWriter, request *http.Request, zeros []byte) (err error) {
	if r.ReceivedBytes, err = io.Copy(io.Discard, request.Body); err != nil {
		return fmt.Errorf("read the body of %s: %w", r.Path, err)
	}
	var size int
	var chunked bool
	if _, err := fmt.Sscanf(request.Header.Get(mixedHeader), "%d %d %t", &r.Status, &size, &chunked); err != nil {
		return fmt.Errorf("read what %s asks for: %w", r.Path, err)
	}
	bodiless := r.Status == http.StatusNoContent || r.Status == http.StatusNotModified
	r.ChunkedResponse = chunked && !bodiless
	if !chunked && !bodiless {
		w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	w.WriteHeader(r.Status)
	if bodiless || r.Method == http.MethodHead {
		return nil
	}
	if chunked {
		w.(http.Flusher).Flush()
	}
	for left := size; left > 0; {
		n, err := w.Write(zeros[:min(left, len(zeros))])
		if err != nil && request.ProtoMajor == 2 && err.Error() == "client disconnected" {
			// It does not wait for the end of the stream. Whether it has all that it was promised, it says itself.
			r.SentBytes = int64(size)
			return nil
		}
		if err != nil {
			return fmt.Errorf("write the body of %s: %w", r.Path, err)
		}
		left -= n
		r.SentBytes += int64(n)
	}
	return nil
}
