package main

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"rebeca"
	"rebeca/consumer"
	"rebeca/internal/broker"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", Short: "Run the service", Args: noArgs}
	path := configFlag(cmd)
	verbose := cmd.Flags().BoolP("verbose", "v", false, "log at debug level")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		level := slog.LevelInfo
		if *verbose {
			level = slog.LevelDebug
		}
		s := rebeca.New(c, rebeca.Options{
			Logger: newLogger(cmd.ErrOrStderr(), level), Registry: newRegistry(), Version: version,
		})
		return s.Run(cmd.Context())
	}
	return cmd
}

// newRegistry holds the process's own metrics beside the service's.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func brokerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "broker", Short: "Run the embedded development broker alone", Args: noArgs,
		Long: "Run an embedded broker that speaks the Kafka protocol and keeps its data on disk. For development only.",
	}
	listen := cmd.Flags().String("listen", "127.0.0.1:9092", "address to listen on")
	advertise := cmd.Flags().String("advertise", "", "address that clients are told to come to, where it is another than --listen, as behind a proxy")
	data := cmd.Flags().String("data", "", "directory for the log (required)")
	require(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := broker.Start(broker.Options{Listen: *listen, Advertise: *advertise, DataDir: *data, Logger: newLogger(cmd.ErrOrStderr(), slog.LevelWarn)})
		if err != nil {
			return err
		}
		defer b.Close()
		fmt.Fprintln(cmd.OutOrStdout(), "broker listening on", b.Addr())
		<-cmd.Context().Done()
		return nil
	}
	return cmd
}

func topicsCommand() *cobra.Command {
	create := &cobra.Command{
		Use: "create", Short: "Make missing topics, refuse wrong ones; safe to repeat", Args: noArgs,
	}
	path := configFlag(create)
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		c, client, err := dial(cmd, *path)
		if err != nil {
			return err
		}
		defer client.Close()
		created, err := consumer.EnsureTopics(cmd.Context(), client, c.WantedTopics(), c.Kafka.Replication)
		if err != nil {
			return err
		}
		for _, name := range created {
			fmt.Fprintln(cmd.OutOrStdout(), "created", name)
		}
		if len(created) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "all topics are there")
		}
		return nil
	}
	return group("topics", "Make and check the topics", create)
}

func configCommand() *cobra.Command {
	validate := &cobra.Command{Use: "validate", Short: "Check a configuration file and that the files it names are there", Args: noArgs}
	path := configFlag(validate)
	validate.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		if err := c.CheckFiles(); err != nil {
			return usageError{fmt.Errorf("%s: %w", *path, err)}
		}
		fmt.Fprintln(cmd.OutOrStdout(), *path, "is valid")
		return nil
	}
	show := &cobra.Command{Use: "print", Short: "Print the whole configuration, defaults included, secrets left out", Args: noArgs}
	shown := configFlag(show)
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*shown)
		if err != nil {
			return err
		}
		if c.HTTP.Token != "" {
			c.HTTP.Token = "***"
		}
		enc := yaml.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent(2)
		defer enc.Close()
		return enc.Encode(c)
	}
	return group("config", "Check and print configuration files", validate, show)
}
