// Command compose checks a compose file against the Compose Specification and its own references, for machines without Docker:
//
//	go run . ../../docker-compose.yml
//
// It is a module of its own, so that what it needs is not among the service's dependencies.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func check(file string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithOsEnv, cli.WithResolvedPaths(true), cli.WithConsistency(true))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	if err := missingFiles(project); err != nil {
		return err
	}
	fmt.Printf("%s: valid; services %s; volumes %s\n", filepath.Base(file),
		strings.Join(project.ServiceNames(), ", "), strings.Join(slices.Sorted(maps.Keys(project.Volumes)), ", "))
	return nil
}

// missingFiles looks for what the specification leaves to the engine: the files that the project names on this machine.
func missingFiles(project *types.Project) error {
	var paths []string
	for _, config := range project.Configs {
		paths = append(paths, config.File)
	}
	for _, secret := range project.Secrets {
		paths = append(paths, secret.File)
	}
	for _, service := range project.Services {
		if service.Build != nil {
			paths = append(paths, filepath.Join(service.Build.Context, service.Build.Dockerfile))
		}
	}
	var errs []error
	for _, path := range paths {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
