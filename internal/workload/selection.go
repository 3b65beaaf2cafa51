//go:build linux

package workload

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Rule describes workloads. Every field that is set has to match; a rule without any is an error.
type Rule struct {
	// Executable is a glob over the full path ("/usr/bin/python3*", "/opt/**"), or, without a slash, over the name.
	Executable string `mapstructure:"executable"`
	// Port is a port ("8080") or a range ("8080-8090") in which the service's port of a connection lies.
	Port string `mapstructure:"port"`
	// PID is a process id as the host sees it.
	PID uint32 `mapstructure:"pid"`
	// Cgroup is a glob over the cgroup path ("/kubepods/**").
	Cgroup string `mapstructure:"cgroup"`
	// ContainerID is a container id, or at least its first twelve digits.
	ContainerID string `mapstructure:"container_id"`
}

// Selection says whom to observe: what an include rule matches (everything if there is none) and no exclude rule does.
type Selection struct {
	Include []Rule `mapstructure:"include"`
	Exclude []Rule `mapstructure:"exclude"`
}

// Validate reports every mistake, each with its place.
func (s Selection) Validate() error {
	_, err := s.Compile()
	return err
}

// Compile makes the selection ready to match. A selection without rules gives nil, which matches everything.
func (s Selection) Compile() (*Selector, error) {
	include, includeErr := compileRules("include", s.Include)
	exclude, excludeErr := compileRules("exclude", s.Exclude)
	if err := errors.Join(includeErr, excludeErr); err != nil {
		return nil, err
	}
	if len(include) == 0 && len(exclude) == 0 {
		return nil, nil
	}
	return &Selector{include: include, exclude: exclude}, nil
}

// Selector matches workloads. A nil Selector matches everything.
type Selector struct {
	include []matcher
	exclude []matcher
}

// Match tells whether a connection of a workload is observed. servicePort is the port of the connection's service, zero
// where there is none: rules with a port then do not match.
func (s *Selector) Match(w *Workload, servicePort uint16) bool {
	if s == nil {
		return true
	}
	for i := range s.exclude {
		if s.exclude[i].match(w, servicePort) {
			return false
		}
	}
	for i := range s.include {
		if s.include[i].match(w, servicePort) {
			return true
		}
	}
	return len(s.include) == 0
}

// matcher is a checked Rule.
type matcher struct {
	executable     string
	executableName bool // executable is matched against the name alone
	hasPort        bool
	firstPort      uint16
	lastPort       uint16
	pid            uint32
	cgroup         string
	containerID    string
}

func (m *matcher) match(w *Workload, servicePort uint16) bool {
	if m.hasPort && (servicePort < m.firstPort || servicePort > m.lastPort) {
		return false
	}
	if m.pid != 0 && m.pid != w.PID {
		return false
	}
	if m.containerID != "" && !strings.HasPrefix(w.ContainerID, m.containerID) {
		return false
	}
	if m.executable != "" {
		subject := w.ExecutablePath
		if m.executableName {
			subject = w.ExecutableName
		}
		if subject == "" || !doublestar.MatchUnvalidated(m.executable, subject) {
			return false
		}
	}
	return m.cgroup == "" || w.CgroupPath != "" && doublestar.MatchUnvalidated(m.cgroup, w.CgroupPath)
}

func compileRules(list string, rules []Rule) ([]matcher, error) {
	matchers := make([]matcher, 0, len(rules))
	var errs []error
	for i, rule := range rules {
		compiled, err := rule.compile(fmt.Sprintf("%s[%d]", list, i))
		matchers = append(matchers, compiled)
		errs = append(errs, err)
	}
	return matchers, errors.Join(errs...)
}

var containerIDPrefix = regexp.MustCompile(`^[0-9a-f][0-9a-f-]{11,127}$`)

func (r Rule) compile(place string) (matcher, error) {
	if r == (Rule{}) {
		return matcher{}, fmt.Errorf(
			"%s: the rule is empty; set at least one of executable, port, pid, cgroup, container_id", place)
	}
	compiled := matcher{
		executable:     r.Executable,
		executableName: !strings.Contains(r.Executable, "/"),
		pid:            r.PID,
		cgroup:         r.Cgroup,
		containerID:    r.ContainerID,
	}
	var errs []error
	fail := func(field, format string, arguments ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: %w", place, field, fmt.Errorf(format, arguments...)))
	}
	switch {
	case r.Executable == "":
	case !doublestar.ValidatePattern(r.Executable):
		fail("executable", "%q is not a valid pattern; want a path or name with *, **, ?, [a-z] or {a,b}", r.Executable)
	case !compiled.executableName && !startsAtRoot(r.Executable):
		fail("executable", "%q never matches, because paths are absolute; want /%s, **/%s, or a name without a slash",
			r.Executable, r.Executable, r.Executable)
	}
	switch {
	case r.Cgroup == "":
	case !doublestar.ValidatePattern(r.Cgroup):
		fail("cgroup", "%q is not a valid pattern; want a cgroup path with *, **, ?, [a-z] or {a,b}", r.Cgroup)
	case !startsAtRoot(r.Cgroup):
		fail("cgroup", "%q never matches, because cgroup paths start with a slash; want /%s or **/%s",
			r.Cgroup, r.Cgroup, r.Cgroup)
	}
	if r.ContainerID != "" && !containerIDPrefix.MatchString(r.ContainerID) {
		fail("container_id", "%q is not a container id; want at least its first 12 hexadecimal digits, in lower case",
			r.ContainerID)
	}
	if r.Port != "" {
		first, last, err := parsePorts(r.Port)
		if err != nil {
			fail("port", "%q: %w; want a port such as \"8080\" or a range such as \"8080-8090\", from 1 to 65535", r.Port, err)
		}
		compiled.hasPort, compiled.firstPort, compiled.lastPort = true, first, last
	}
	return compiled, errors.Join(errs...)
}

// startsAtRoot tells whether a pattern can match an absolute path.
func startsAtRoot(pattern string) bool {
	return strings.IndexByte("/*?[{\\", pattern[0]) >= 0
}

func parsePorts(text string) (first, last uint16, err error) {
	low, high, isRange := strings.Cut(text, "-")
	if first, err = parsePort(low); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = parsePort(high); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, errors.New("the range ends before it starts")
	}
	return first, last, nil
}

func parsePort(text string) (uint16, error) {
	port, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && port == 0:
		return 0, errors.New("out of range")
	case err != nil:
		return 0, errors.New("not a number")
	}
	return uint16(port), nil
}
