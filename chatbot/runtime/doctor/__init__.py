"""What `chatbot doctor` looks at: each module one organ, each look a finding that says what to do."""
