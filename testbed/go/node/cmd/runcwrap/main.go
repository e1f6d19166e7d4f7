// Command runcwrap stands in front of runc on machines that may not use CAP_SYS_RESOURCE.
//
// Where that capability is missing from the bounding set no process can hold it, and runc
// refuses every container that asks for it, `--privileged` ones included. runcwrap edits the
// bundle's config.json (create, run) or the file of --process (exec): it takes the capability
// out of every set and raises an oom_score_adj below our own, which only that capability may
// set, to ours. Then it becomes the real runc, whose path is linked in with -X main.runc=PATH.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const unwanted = "CAP_SYS_RESOURCE"

var runc = "/usr/sbin/runc"

// option returns the value of an option written "--name value" or "--name=value".
func option(args []string, names ...string) string {
	for i, arg := range args {
		for _, name := range names {
			if arg == name && i+1 < len(args) {
				return args[i+1]
			}
			if value, ok := strings.CutPrefix(arg, name+"="); ok {
				return value
			}
		}
	}
	return ""
}

func ownOOMScore() int64 {
	text, _ := os.ReadFile("/proc/self/oom_score_adj")
	score, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return score
}

func without(set []any) []any {
	kept := []any{}
	for _, capability := range set {
		if capability != unwanted {
			kept = append(kept, capability)
		}
	}
	return kept
}

func editProcess(process map[string]any) {
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for name, value := range sets {
			if set, ok := value.([]any); ok {
				sets[name] = without(set)
			}
		}
	}
	if number, ok := process["oomScoreAdj"].(json.Number); ok {
		if score, err := number.Int64(); err == nil && score < ownOOMScore() {
			process["oomScoreAdj"] = ownOOMScore()
		}
	}
}

// edit rewrites one JSON file; inBundle says that the process is a member of the document.
func edit(path string, inBundle bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return err
	}
	process := document
	if inBundle {
		process, _ = document["process"].(map[string]any)
	}
	if process == nil {
		return nil
	}
	editProcess(process)
	if text, err = json.Marshal(document); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func prepare(args []string) error {
	for i, arg := range args {
		switch arg {
		case "create", "run", "restore":
			bundle := option(args[i:], "--bundle", "-bundle", "-b")
			return edit(filepath.Join(bundle, "config.json"), true)
		case "exec":
			if file := option(args[i:], "--process", "-process", "-p"); file != "" {
				return edit(file, false)
			}
			return nil
		}
	}
	return nil
}

func main() {
	if err := prepare(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runcwrap:", err)
	}
	err := syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ())
	fmt.Fprintf(os.Stderr, "runcwrap: cannot start %s: %v\n", runc, err)
	os.Exit(127)
}
