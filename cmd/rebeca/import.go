package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/internal/meter"
)

func feedbackCommand() *cobra.Command {
	return group("feedback", "Work with the feedback topic", importCommand("EVENTS.jsonl", "Send a history of feedback to its topic",
		func(c rebeca.Config) (string, func([]byte) ([]byte, error)) {
			return c.Kafka.Topics.Feedback, rebeca.FeedbackLine
		}))
}

func itemsCommand() *cobra.Command {
	return group("items", "Work with the catalogue's topic", importCommand("ITEMS.jsonl", "Send a catalogue of embeddings to its topic",
		func(c rebeca.Config) (string, func([]byte) ([]byte, error)) {
			return c.Kafka.Topics.Items, rebeca.ItemLine(c.Prior.Dim)
		}))
}

// importCommand makes an import verb; target gives the topic and the parser
// of a line.
func importCommand(file, short string, target func(rebeca.Config) (string, func([]byte) ([]byte, error))) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import " + file, Short: short + ", one JSON object a line; goes on where it was interrupted",
		Args: exactly(1, "one file, "+file),
	}
	path := configFlag(cmd)
	onError := cmd.Flags().String("on-error", "fail", "what a bad line does: fail or skip")
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		skip, err := skips(*onError)
		if err != nil {
			return err
		}
		c, client, err := dial(cmd, *path)
		if err != nil {
			return err
		}
		defer client.Close()
		topic, parse := target(c)
		stderr := cmd.ErrOrStderr()
		var m *meter.Meter
		im := rebeca.Import{
			Client: client, Topic: topic, Partitions: c.Kafka.Partitions, Parse: parse, StateDir: c.State.Dir,
			Skip:  skip,
			OnBad: func(line int, err error) { fmt.Fprintf(stderr, "%s: line %d: %v\n", args[0], line, err) },
			Progress: func(done, total int64) {
				if m == nil {
					m = meter.New(stderr, "bytes sent", total)
				}
				m.Set(done)
			},
		}
		res, err := im.Run(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if m != nil {
			m.Done()
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
		}
		note := ""
		if res.Changed {
			note = " (all of the file: what an earlier import sent of it has changed)"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d records sent to %s, %d bad lines skipped%s\n", res.Produced, topic, res.Bad, note)
		return err
	}
	return cmd
}
