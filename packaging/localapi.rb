# A formula for a tap. The release workflow fills in the address and the checksum of the tag's source.
class Localapi < Formula
  desc "Local model server that follows one file"
  homepage "HOMEPAGE"
  url "HOMEPAGE/archive/refs/tags/v0.1.0.tar.gz"
  sha256 "SHA256"
  license "MIT"

  depends_on "uv" => :build
  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.13"

  def install
    # Installs the tested versions from pyproject.toml, from wheels.
    ENV["UV_PROJECT_ENVIRONMENT"] = libexec
    ENV["UV_PYTHON_DOWNLOADS"] = "never"
    system "uv", "sync", "--no-editable", "--python", Formula["python@3.13"].opt_bin/"python3.13"
    bin.install_symlink libexec/"bin/localapi"
    generate_completions_from_executable(bin/"localapi", "completion")
    (etc/"localapi").install "models.yaml", "configs" unless (etc/"localapi/models.yaml").exist?
  end

  service do
    run [opt_bin/"localapi", "serve", "--manifest", etc/"localapi/models.yaml"]
    keep_alive true
    log_path var/"log/localapi.log"
    error_log_path var/"log/localapi.log"
  end

  test do
    system bin/"localapi", "init", testpath/"models"
    assert_match "demo", shell_output("#{bin}/localapi check #{testpath}/models/models.yaml")
  end
end
