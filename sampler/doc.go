// Package sampler turns what the prior knows of people into embeddings, and embeddings into pixels.
//
// Sample runs few-step reverse diffusion for many people at once over a Denoiser, which *prior.Model satisfies. A Decoder
// maps embeddings to images and an Encoder images to embeddings; both are ONNX files described by a small JSON manifest. A decoder is one
// network, or the many of package stablediffusion.
// InlinePNG packs an image as it travels in a record.
//
// Everything here is stateless: the same denoiser, options and job give the same bytes, whatever else is in the call.
package sampler
