// Package shapes is the controlled world of Rebeca: people whose taste is known
// exactly, pictures whose content is known exactly, and a small codec between
// pictures and 16-dimensional embeddings.
//
// A taste is a shape and a hue. Pictures are 64x64 RGB, drawn in any pose,
// anti-aliased and deterministic by seed. A [Preset] says which tastes exist, how
// many items and people there are and how people answer; [NewWorld] makes it
// concrete; [World.Stream] plays the people; a [Judge] names the taste of an
// embedding by its nearest real picture and so measures what was generated against
// the world's truth, never against a model's own opinion. [Codec] holds the encoder
// and the decoder as ONNX files with their manifest.
package shapes
