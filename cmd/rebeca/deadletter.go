package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/schemas"
)

func deadletterCommand() *cobra.Command {
	return group("deadletter", "Look at records that could not be used, and send them again", letterList(), letterShow(), letterRedrive())
}

// filterFlags choose dead letters.
func filterFlags(cmd *cobra.Command) (parse func() (rebeca.LetterFilter, error)) {
	f := cmd.Flags()
	reasons := f.StringSlice("reason", nil, "reason classes, such as bad_json")
	topic := f.String("topic", "", "topic that they came from")
	since := f.String("since", "", "written at this time or later: RFC 3339, or a duration back such as 2h")
	until := f.String("until", "", "written before this time")
	return func() (out rebeca.LetterFilter, err error) {
		out.Topic = *topic
		for _, r := range *reasons {
			out.Reasons = append(out.Reasons, schemas.Reason(r))
		}
		if err := out.Validate(); err != nil {
			return out, usageError{fmt.Errorf("--reason: %w", err)}
		}
		if out.Since, err = moment("--since", *since); err != nil {
			return out, err
		}
		out.Until, err = moment("--until", *until)
		return out, err
	}
}

// moment reads a time, or a duration back from now; "" is zero.
func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if back, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-back), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usageError{fmt.Errorf("%s: %q is neither a time such as 2026-05-01T00:00:00Z nor a duration back such as 2h", flag, text)}
	}
	return at, nil
}

// placeOf reads PARTITION:OFFSET.
func placeOf(text string) (schemas.Position, error) {
	p, o, ok := strings.Cut(text, ":")
	partition, perr := strconv.ParseInt(p, 10, 32)
	offset, oerr := strconv.ParseInt(o, 10, 64)
	if !ok || perr != nil || oerr != nil || partition < 0 || offset < 0 {
		return schemas.Position{}, usageError{fmt.Errorf("%q is not PARTITION:OFFSET, as `deadletter list` prints them", text)}
	}
	return schemas.Position{Partition: int32(partition), Offset: offset}, nil
}

func letterList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, and count them by reason class", Args: noArgs,
		Long: `List dead letters by partition and offset, and count them by reason class. With
--json each is a line, and {"total","counts"} is the last.`,
	}
	path := configFlag(cmd)
	filter := filterFlags(cmd)
	limit := cmd.Flags().Int("limit", 0, "how many to list, the first ones; they are counted all the same; 0 lists all")
	asJSON := cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		chosen, err := filter()
		if err != nil {
			return err
		}
		if *limit < 0 {
			return usageError{fmt.Errorf("--limit is %d, below 0", *limit)}
		}
		c, client, err := dial(cmd, *path)
		if err != nil {
			return err
		}
		defer client.Close()
		out := cmd.OutOrStdout()
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		listed, counts := 0, map[string]uint64{}
		d := rebeca.DeadLetters{Config: c, Client: client, Filter: chosen}
		err = d.Each(cmd.Context(), func(l rebeca.DeadLetter) error {
			counts[l.Reason]++
			if listed++; *limit > 0 && listed > *limit {
				return nil
			}
			if *asJSON {
				return json.NewEncoder(out).Encode(l)
			}
			_, err := fmt.Fprintf(table, "%d:%d\t%s\t%s\t%s[%d] %d\t%.40q\t%d bytes\t%.120s\n", l.Partition, l.Offset,
				l.Time.Format(time.RFC3339), l.Reason, l.Topic, l.SourcePartition, l.SourceOffset, l.Key, l.Bytes, printable(l.Message))
			return err
		})
		if err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(out).Encode(map[string]any{"total": listed, "counts": counts})
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if *limit > 0 && listed > *limit {
			fmt.Fprintf(out, "… and %d more\n", listed-*limit)
		}
		_, err = fmt.Fprintln(out, countsOf(counts, "dead letters"))
		return err
	}
	return cmd
}

// printable keeps what a record says from speaking to the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}

func letterShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show PARTITION:OFFSET", Short: "Show one dead letter: its headers, then the bytes of its value as they came",
		Args: exactly(1, "one PARTITION:OFFSET, as `deadletter list` prints them"),
	}
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print one JSON object; what is not UTF-8 stands in …_base64")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		at, err := placeOf(args[0])
		if err != nil {
			return err
		}
		c, client, err := dial(cmd, *path)
		if err != nil {
			return err
		}
		defer client.Close()
		d := rebeca.DeadLetters{Config: c, Client: client}
		l, err := d.Get(cmd.Context(), at)
		if err != nil {
			return err
		}
		if *asJSON {
			return showJSON(cmd.OutOrStdout(), l)
		}
		return showText(cmd.OutOrStdout(), l)
	}
	return cmd
}

func showText(w io.Writer, l rebeca.DeadLetter) error {
	fmt.Fprintf(w, "time: %s\nkey: %q\n", l.Time.Format(time.RFC3339Nano), l.Key)
	for _, h := range l.Record.Headers {
		fmt.Fprintf(w, "%s: %s\n", printable(h.Key), printable(string(h.Value)))
	}
	if l.Record.Value == nil {
		_, err := fmt.Fprintln(w, "\n(a null value)")
		return err
	}
	fmt.Fprintln(w)
	_, err := w.Write(l.Record.Value)
	return err
}

func showJSON(w io.Writer, l rebeca.DeadLetter) error {
	type header struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	out := struct {
		rebeca.DeadLetter
		Headers     []header `json:"headers"`
		KeyBase64   []byte   `json:"key_base64,omitempty"`
		Value       *string  `json:"value"` // null for a null value
		ValueBase64 []byte   `json:"value_base64,omitempty"`
	}{DeadLetter: l, Headers: []header{}}
	for _, h := range l.Record.Headers {
		out.Headers = append(out.Headers, header{h.Key, string(h.Value)})
	}
	if !utf8.Valid(l.Record.Key) {
		out.KeyBase64 = l.Record.Key
	}
	switch v := l.Record.Value; {
	case v == nil:
	case utf8.Valid(v):
		s := string(v)
		out.Value = &s
	default:
		out.ValueBase64 = v
	}
	return json.NewEncoder(w).Encode(out)
}

func letterRedrive() *cobra.Command {
	cmd := &cobra.Command{
		Use: "redrive [PARTITION:OFFSET]...", Short: "Send dead letters to the topics they came from",
		Long: `Send dead letters to the topics they came from, with their key, into the partition
that it belongs to. Name them, or choose them by flags. A letter that would come
back stays, and is said; so does one that was redriven before, and one that forgets
a user, for it would forget what came since as well. A record that has come back
three times gets the reason class redriven, and stays.

--edit COMMAND is run by the shell for each letter: it gets the value and gives
the new one, with REBECA_REASON, REBECA_MESSAGE, REBECA_TOPIC and REBECA_KEY in its
environment. It must keep the event_id, by which resends are known. For example:
  rebeca deadletter redrive -c FILE --reason unknown_kind --edit 'sed s/loved/like/'`,
	}
	path := configFlag(cmd)
	filter := filterFlags(cmd)
	f := cmd.Flags()
	all := f.Bool("all", false, "choose every dead letter")
	edit := f.String("edit", "", "command that turns a value on its input into the one to send on its output")
	onError := f.String("on-error", "fail", "what an edit that fails does: fail or skip")
	force := f.Bool("force", false, "send also what would come back, has come back too often, was sent before, or forgets a user")
	dryRun := f.Bool("dry-run", false, "say what would be sent, edits included, and send nothing")
	asJSON := f.Bool("json", false, "print JSON lines: each letter, then the totals")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		chosen, err := filter()
		if err != nil {
			return err
		}
		if *onError != "fail" && *onError != "skip" {
			return usageError{fmt.Errorf("--on-error is %q, not fail or skip", *onError)}
		}
		var places []schemas.Position
		for _, arg := range args {
			at, err := placeOf(arg)
			if err != nil {
				return err
			}
			places = append(places, at)
		}
		by := *all
		for _, name := range []string{"reason", "topic", "since", "until"} {
			by = by || f.Changed(name)
		}
		switch {
		case by && len(places) > 0:
			return usageError{errors.New("letters are named and chosen by flags: keep one")}
		case !by && len(places) == 0:
			return usageError{errors.New("which letters? Name them as PARTITION:OFFSET, choose them by --reason, --topic, --since or --until, or give --all")}
		}
		c, client, err := dial(cmd, *path)
		if err != nil {
			return err
		}
		defer client.Close()
		out := cmd.OutOrStdout()
		r := rebeca.Redrive{
			DeadLetters: rebeca.DeadLetters{Config: c, Client: client, Filter: chosen},
			At:          places, Edit: *edit, Force: *force, Skip: *onError == "skip", DryRun: *dryRun,
		}
		r.Tell = func(l rebeca.Redriven) { sayRedriven(out, l, *dryRun, *asJSON) }
		res, err := r.Run(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(out).Encode(res)
		}
		verb := "redriven"
		if *dryRun {
			verb = "would be redriven"
		}
		_, err = fmt.Fprintf(out, "%d dead letters %s, %d stay\n", res.Redriven, verb, res.Left)
		return err
	}
	return cmd
}

// sayRedriven prints a line; one that cannot be printed has nobody to be told.
func sayRedriven(w io.Writer, l rebeca.Redriven, dryRun, asJSON bool) {
	switch {
	case asJSON:
		_ = json.NewEncoder(w).Encode(l)
	case l.Left != "":
		fmt.Fprintf(w, "%d:%d (%s) stays: %s\n", l.Partition, l.Offset, l.Reason, printable(l.Left))
	case dryRun:
		fmt.Fprintf(w, "%d:%d (%s) would go to %s\n", l.Partition, l.Offset, l.Reason, l.Topic)
	default:
		fmt.Fprintf(w, "%d:%d (%s) went to %s[%d] at %d\n", l.Partition, l.Offset, l.Reason, l.Topic, l.To.Partition, l.To.Offset)
	}
}
