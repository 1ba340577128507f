package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"rebeca"
)

func partitionsCommand() *cobra.Command {
	return group("partitions", "See and change which state directory owns a partition", partitionsList(), partitionsTake())
}

func partitionsList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Show the owner of every partition, as it stands in the group", Args: noArgs}
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "JSON lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		owners, err := rebeca.Owners(cmd.Context(), c)
		if err != nil {
			return err
		}
		for _, o := range owners {
			if *asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(o); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintln(cmd.OutOrStdout(), o)
		}
		return nil
	}
	return cmd
}

func partitionsTake() *cobra.Command {
	cmd := &cobra.Command{
		Use: "take", Short: "Claim partitions whose owner is lost, for this state; serve then folds them from where the state is", Args: noArgs,
	}
	path := configFlag(cmd)
	partitions := partitionsFlag(cmd, "which, such as 2-3 (required)")
	dryRun := cmd.Flags().Bool("dry-run", false, "say what would be done and do nothing")
	require(cmd, "partitions")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, some, err := loadDivided(*path, *partitions)
		if err != nil {
			return err
		}
		done, err := rebeca.TakePartitions(cmd.Context(), c, some, *dryRun)
		for _, line := range done {
			fmt.Fprintln(cmd.OutOrStdout(), line)
		}
		return err
	}
	return cmd
}
